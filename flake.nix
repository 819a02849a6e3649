{
  description = "Cheap nftables counters for Linux and NixOS routers that name the culprit when a threshold is crossed";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem =
        of:
        lib.genAttrs [
          "x86_64-linux"
          "aarch64-linux"
        ] (system: of system nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEachSystem (
        _system: pkgs: rec {
          flowctl = pkgs.callPackage ./nix/package.nix { };
          default = flowctl;
        }
      );
      overlays.default = import ./nix/overlay.nix;
      nixosModules = rec {
        flowctl = ./nix/module.nix;
        default = flowctl;
      };
      checks = forEachSystem (
        system: pkgs:
        import ./nix/tests/checks.nix {
          inherit
            nixpkgs
            pkgs
            self
            system
            ;
        }
      );
      devShells = forEachSystem (_system: pkgs: { default = import ./nix/shell.nix { inherit pkgs; }; });
      formatter = forEachSystem (_system: pkgs: pkgs.nixfmt);
    };
}
