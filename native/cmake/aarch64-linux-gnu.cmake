# Cross build for 64-bit ARM Linux, its tests run by emulation (Debian, Ubuntu: g++-aarch64-linux-gnu qemu-user):
#   cmake -S native -B build -DCMAKE_TOOLCHAIN_FILE=native/cmake/aarch64-linux-gnu.cmake
# SIGNBIT_QEMU_CPU names the emulated core, e.g. cortex-a53.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
foreach(language C CXX)
  if(NOT CMAKE_${language}_COMPILER)
    set(names_C aarch64-linux-gnu-gcc aarch64-linux-gnu-gcc-14 aarch64-linux-gnu-gcc-13 aarch64-linux-gnu-gcc-12)
    string(REPLACE "gcc" "g++" names_CXX "${names_C}")
    find_program(SIGNBIT_CROSS_${language} NAMES ${names_${language}})
    if(NOT SIGNBIT_CROSS_${language})
      message(FATAL_ERROR "no ${names_${language}} found: apt-get install g++-aarch64-linux-gnu")
    endif()
    set(CMAKE_${language}_COMPILER ${SIGNBIT_CROSS_${language}})
  endif()
endforeach()

set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

set(SIGNBIT_QEMU_CPU max CACHE STRING "Core that qemu-aarch64 emulates")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu ${SIGNBIT_QEMU_CPU} -L /usr/aarch64-linux-gnu)
