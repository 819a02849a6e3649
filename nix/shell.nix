# What developing flowctl needs: Rust, and the programs that its tests compare it with and let run in namespaces.
{
  pkgs ? import <nixpkgs> { },
}:
pkgs.mkShell {
  packages = [
    pkgs.busybox
    pkgs.cargo
    pkgs.clippy
    pkgs.conntrack-tools
    pkgs.dnsmasq
    pkgs.iproute2
    pkgs.kea
    pkgs.nftables
    pkgs.rustc
    pkgs.rustfmt
  ];
}
