"""Makes Python look as it does in Termux, where AS_ANDROID is set: imported at each start of it."""

import os
import sys

if os.environ.get("AS_ANDROID"):
    import contextlib
    import ctypes.util
    import io
    import platform
    import sysconfig

    # Termux's is newer, patched to take Android for the Linux that it is, and silent where /proc
    # denies something. Debian's goes by the name below, and is not on the path so early.
    sys.path.append("/usr/lib/python3/dist-packages")
    with contextlib.redirect_stderr(io.StringIO()):
        import psutil  # noqa: F401

    sys.path.pop()

    sys.platform = "android"
    sys.getandroidapilevel = lambda: 24  # type: ignore[attr-defined]
    platform.system = lambda: "Android"
    sysconfig.get_platform = lambda: "android-24-arm64_v8a"
    ctypes.util.find_library = lambda name: None
    del os.getloadavg
