"""One file per command of `flynas`; each defines `command`, whose signature is the command's."""
