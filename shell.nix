# `nix-shell` without flakes.
import ./nix/shell.nix
