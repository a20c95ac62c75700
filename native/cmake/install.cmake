# What a C or C++ program needs: header, library, the CMake package `signbit`, and signbit.pc.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Before 1.0 a minor version may change the interface, so that it names the shared library.
set_target_properties(signbit PROPERTIES VERSION ${PROJECT_VERSION}
                                         SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
install(DIRECTORY include/signbit DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS signbit EXPORT signbitTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(SIGNBIT_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/signbit)
install(EXPORT signbitTargets NAMESPACE signbit:: DESTINATION ${SIGNBIT_PACKAGE_DIR})
configure_package_config_file(cmake/signbitConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/signbitConfig.cmake
                              INSTALL_DESTINATION ${SIGNBIT_PACKAGE_DIR})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/signbitConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/signbitConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/signbitConfigVersion.cmake
        DESTINATION ${SIGNBIT_PACKAGE_DIR})

set(SIGNBIT_PC_LIBS "-L\${libdir} -lsignbit")
if(NOT BUILD_SHARED_LIBS)
  # A static library leaves its own dependencies, the C++ library among them, to whoever links it.
  if("c++" IN_LIST CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
    string(APPEND SIGNBIT_PC_LIBS " -lc++")
  else()
    string(APPEND SIGNBIT_PC_LIBS " -lstdc++")
  endif()
  string(APPEND SIGNBIT_PC_LIBS " ${CMAKE_THREAD_LIBS_INIT} -lm")
endif()
# The file finds its own prefix, so that an installed tree can be moved.
file(RELATIVE_PATH SIGNBIT_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/signbit.pc.in ${CMAKE_CURRENT_BINARY_DIR}/signbit.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/signbit.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
