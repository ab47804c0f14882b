"""Data sets, one per file: the file's name is the data set's name.

Every public module here defines

- `dataset(**options) -> nas.data.Data`: reads it; raises `InputError` with the exact ways to get it if it is missing;
- `status() -> nas.data.Status`: found or not, where, how many images, how to get it, licence, one line of description.
  It only looks whether files or packages are there and reads no images, so that `flynas data` is quick;
- and, only where an official address exists, `download(folder=None) -> Path`, which is never called unasked.

A module imports nothing heavy and touches no network when imported. Files are looked for in this order: the `folder`
option (then nowhere else), `$FLYNAS_DATA/<name>`, the place where a Linux package puts them, the user's cache
(`$XDG_CACHE_HOME/flynas/<name>`, by default `~/.cache/flynas/<name>`).
"""
