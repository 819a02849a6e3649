# The flake's checks, for who has nixpkgs: each configuration of configs.nix as a NixOS system whose assertions hold and
# whose file passes `flowctl check`, and the router test in virtual machines.
{
  nixpkgs,
  pkgs,
  self,
  system,
  configs ? import ./configs.nix,
}:
let
  inherit (nixpkgs) lib;
  systemOf =
    configuration:
    (lib.nixosSystem {
      inherit system;
      modules = [
        self.nixosModules.default
        configuration
        {
          boot.loader.grub.enable = false;
          fileSystems."/" = {
            device = "/dev/none";
            fsType = "ext4";
          };
          system.stateVersion = lib.trivial.release;
        }
      ];
    }).config;
  # Building the unit and its file runs the check that the module adds. Assertions are looked at only for a whole system.
  check =
    name: configuration:
    let
      config = systemOf configuration;
      failed = lib.filter (one: !one.assertion) config.assertions;
    in
    assert lib.assertMsg (failed == [ ])
      "${name}: ${lib.concatMapStringsSep " " (one: one.message) failed}";
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
