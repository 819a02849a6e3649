# Adds flowctl to a package set.
final: _previous: { flowctl = final.callPackage ./package.nix { }; }
