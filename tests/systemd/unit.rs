//! The units that are tried: the plain one that every distribution can install, and the one that the NixOS module
//! makes.

use crate::machine::Files;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The files in `systemd/`, where a package puts them.
    Plain,
    /// What the module evaluates to.
    Evaluated,
}

const DRAFT: &str = "[Service]
Type=exec
ExecStartPost=-timeout 1 /bin/sh -c 'until flowctl status >/dev/null 2>&1; do sleep 0.05; done'
ExecStart=flowctl run
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
Restart=on-failure
RestartSec=1s
RestartPreventExitStatus=64 77 78
DynamicUser=yes
User=flowctld
Group=flowctl
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN
StateDirectory=flowctl
StateDirectoryMode=0750
RuntimeDirectory=flowctl
RuntimeDirectoryMode=0750
FileDescriptorStoreMax=1
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
";

impl Unit {
    /// Puts its files where they belong.
    pub fn install(self, files: &Files) {
        files.write("usr/lib/systemd/system/flowctl.service", DRAFT);
        files.write("usr/lib/sysusers.d/flowctl.conf", "g flowctl -\n");
    }
}
