# What flake.nix offers, with a nixpkgs that has the real lib and stubs for what builds.
{ test, flake }:
let
  inherit (test) lib;
  described = what: { type = "derivation"; } // what;
  pkgs =
    system:
    {
      inherit lib system;
      callPackage =
        path: _:
        let
          wanted = builtins.functionArgs (import path);
          given = {
            inherit lib;
            installShellFiles = "installShellFiles";
            rustPlatform.buildRustPackage = described;
            stdenv.buildPlatform.canExecute = _: true;
            stdenv.hostPlatform = null;
          };
        in
        import path (builtins.intersectAttrs wanted given);
      mkShell = described;
      runCommand =
        name: _: script:
        described { inherit name script; };
      testers.runNixOSTest = described;
      iperf3 = "/iperf3";
      nftables = "/nftables";
      nixfmt = "nixfmt";
    }
    // lib.genAttrs [
      "busybox"
      "cargo"
      "clippy"
      "conntrack-tools"
      "debootstrap"
      "dnsmasq"
      "iproute2"
      "kea"
      "rustc"
      "rustfmt"
      "systemd"
      "util-linux"
    ] (name: name);
  nixpkgs = {
    lib = lib // {
      # As a system, what its modules evaluate to; the second of them is the configuration.
      nixosSystem =
        { modules, system }:
        {
          config = {
            assertions = map (message: {
              assertion = false;
              inherit message;
            }) (test.of (lib.elemAt modules 1)).assertions;
            system.build.etc = "${system}-with-${toString (lib.length modules)}-modules";
          };
        };
    };
    legacyPackages = lib.genAttrs [
      "x86_64-linux"
      "aarch64-linux"
    ] pkgs;
  };
  outputs = (import flake).outputs {
    inherit nixpkgs;
    self = outputs;
  };

  package = outputs.packages.aarch64-linux.default;
  overlaid = outputs.overlays.default (pkgs "x86_64-linux") { };
  module = import outputs.nixosModules.default;
  shell = outputs.devShells.x86_64-linux.default;
  router = outputs.checks.x86_64-linux.router;
  # What is built for each check: of a configuration, its system.
  scripts = lib.mapAttrsToList (
    name: check:
    "${name}: ${
      lib.concatStringsSep " " (lib.splitString "\n" (check.script or check.pname or check.name))
    }"
  ) outputs.checks.x86_64-linux;

  # The same checks of configurations that are meant to be wrong: those that pass, which none may.
  wrong = (import ./configs.nix).asserted;
  checksOfWrong = import ./checks.nix rec {
    inherit nixpkgs;
    system = "x86_64-linux";
    pkgs = nixpkgs.legacyPackages.${system};
    self = outputs;
    configs.right = wrong;
  };
  wrongThatPass = lib.filter (name: (builtins.tryEval checksOfWrong.${name}.script).success) (
    lib.attrNames wrong
  );

  # The flake that docs/nixos.md shows, given this one.
  example = (import ./examples/flake.nix).outputs {
    flowctl = outputs;
    nixpkgs.lib.nixosSystem = { modules, system }: { inherit modules system; };
  };
  uses = lib.head example.nixosConfigurations.router.modules == outputs.nixosModules.default;

  line = name: value: "${name}: ${value}\n";
  perSystem = name: line name (lib.concatStringsSep " " (lib.attrNames outputs.${name}));
in
line "outputs" (lib.concatStringsSep " " (lib.attrNames outputs))
+ lib.concatMapStrings perSystem [
  "packages"
  "devShells"
  "checks"
  "formatter"
]
+ line "packages of a system" (
  lib.concatStringsSep " " (lib.attrNames outputs.packages.x86_64-linux)
)
+ line "package" "${package.pname} ${package.version}, runs ${package.meta.mainProgram}"
+ line "source" (toString (lib.length (lib.attrNames (builtins.readDir package.src))))
+ line "lock" (baseNameOf package.cargoLock.lockFile)
+ line "licences" (lib.concatMapStringsSep " " (one: one.spdxId) package.meta.license)
+ line "overlay" (lib.concatStringsSep " " (lib.attrNames overlaid))
+ line "overlaid package" overlaid.flowctl.pname
+ line "modules" (lib.concatStringsSep " " (lib.attrNames outputs.nixosModules))
+ line "module is" (builtins.typeOf module)
+ line "shell" (lib.concatMapStringsSep " " (one: one.name or one) shell.packages)
+ line "formatter" outputs.formatter.x86_64-linux
+ line "router test" "${router.name}: ${lib.concatStringsSep " " (lib.attrNames router.nodes)}"
+ line "example uses the module" (lib.boolToString uses)
+ lib.concatMapStrings (check: "check ${check}\n") scripts
+ line "wrong configurations that pass their check" (toString (lib.length wrongThatPass))
