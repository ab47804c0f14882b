"""Search strategies, one file each: `strategy(space, *, ...) -> nas.types.Strategy`. The file name is the name."""
