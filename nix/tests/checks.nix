# The flake's checks, for who has nixpkgs: each configuration of configs.nix as a NixOS system whose file passes
# `flowctl check`, and the router test in virtual machines.
{
  nixpkgs,
  pkgs,
  self,
  system,
}:
let
  inherit (nixpkgs) lib;
  configs = import ./configs.nix;
  systemOf =
    configuration:
    (nixpkgs.lib.nixosSystem {
      inherit system;
      modules = [
        self.nixosModules.default
        configuration
        {
          boot.loader.grub.enable = false;
          fileSystems."/".device = "/dev/none";
          system.stateVersion = lib.trivial.release;
        }
      ];
    }).config;
  # Building the unit and its file runs the check that the module adds.
  check =
    name: configuration:
    let
      config = systemOf configuration;
    in
    pkgs.runCommand "flowctl-${name}" { } ''
      ln -s ${config.system.build.etc} $out
    '';
  usable = removeAttrs configs.right [
    "disabled"
    # Its file is that of another machine.
    "config-file-of-the-machine"
    # Sets a version of a kernel by hand.
    "flush-on-an-older-kernel"
  ];
in
lib.mapAttrs check usable
// {
  package = self.packages.${system}.default;
  router = import ./router.nix { inherit pkgs self; };
}
