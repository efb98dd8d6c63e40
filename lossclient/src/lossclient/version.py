"""The version of this package, in a file that every other one may import."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lossclient")
except PackageNotFoundError:  # shipped as bare source, as Ray's `py_modules` does
    __version__ = "0+unknown"
