# What developing flowctl needs: Rust, and the programs that its tests compare it with and let run in namespaces. The
# compiler of C comes with every shell.
{
  pkgs ? import <nixpkgs> { },
}:
let
  # The other programs of busybox would take the place of the real ones.
  udhcpc = pkgs.runCommand "udhcpc" { } ''
    mkdir -p "$out/bin"
    ln -s ${pkgs.busybox}/bin/udhcpc "$out/bin/udhcpc"
  '';
in
pkgs.mkShell {
  packages = [
    pkgs.cargo
    pkgs.clippy
    pkgs.conntrack-tools
    pkgs.debootstrap
    pkgs.dnsmasq
    pkgs.iproute2
    pkgs.kea
    pkgs.nftables
    pkgs.rustc
    pkgs.rustfmt
    pkgs.systemd
    pkgs.util-linux
    udhcpc
  ];
}
