# x86-64 built as ever, but its tests run on an emulated CPU, for those that this machine's cannot stand for
# (Debian, Ubuntu: qemu-user):
#   cmake -S native -B build -DCMAKE_TOOLCHAIN_FILE=native/cmake/x86-64-emulated.cmake -DSIGNBIT_QEMU_CPU=Nehalem
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(SIGNBIT_QEMU_CPU Opteron_G1 CACHE STRING "CPU that qemu-x86_64 emulates")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-x86_64 -cpu ${SIGNBIT_QEMU_CPU})
