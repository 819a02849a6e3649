{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
  inputs.flowctl.url = "path:/home/me/src/flowctl";
  inputs.flowctl.inputs.nixpkgs.follows = "nixpkgs";

  outputs =
    { nixpkgs, flowctl, ... }:
    {
      nixosConfigurations.router = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [
          flowctl.nixosModules.default
          ./configuration.nix
        ];
      };
    };
}
