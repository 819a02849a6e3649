# `nix-build` without flakes gives the package; the module is nix/module.nix.
{
  pkgs ? import <nixpkgs> { },
}:
pkgs.callPackage ./nix/package.nix { }
