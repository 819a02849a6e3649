# The program with its completions and manual pages. The lock file of cargo has all hashes, so there is none here to maintain.
{
  lib,
  installShellFiles,
  rustPlatform,
  stdenv,
}:
let
  root = ../.;
in
rustPlatform.buildRustPackage {
  pname = "flowctl";
  inherit ((lib.importTOML (root + "/Cargo.toml")).package) version;

  src = lib.fileset.toSource {
    inherit root;
    fileset = lib.fileset.unions [
      (root + "/Cargo.toml")
      (root + "/Cargo.lock")
      (root + "/src")
      # Cargo wants the benchmark that Cargo.toml names to be there.
      (root + "/tests/bench")
    ];
  };
  cargoLock.lockFile = root + "/Cargo.lock";

  nativeBuildInputs = [ installShellFiles ];

  # The tests need root, network namespaces, nft and conntrack: tests/run runs them outside of a build.
  doCheck = false;

  # Only what can be run here can print them.
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd flowctl \
      --bash <("$out/bin/flowctl" completions bash) \
      --zsh <("$out/bin/flowctl" completions zsh) \
      --fish <("$out/bin/flowctl" completions fish)
    "$out/bin/flowctl" man pages
    installManPage pages/*
  '';

  meta = {
    description = "Cheap nftables counters for routers that name the culprit when a threshold is crossed";
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "flowctl";
    platforms = lib.platforms.linux;
  };
}
