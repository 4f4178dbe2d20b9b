"""The C++ library and its ctypes binding."""
