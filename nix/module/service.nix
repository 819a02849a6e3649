# How the daemon is run and what it may do, the same on every distribution: systemd/flowctl.service has these settings too.
# Not among them: PrivateUsers (a user namespace loses the capability), PrivateNetwork and ProcSubset=pid (it reads /proc/net).
{
  Type = "notify";
  WatchdogSec = "30s";
  Restart = "on-failure";
  RestartSec = "3s";
  RestartPreventExitStatus = "64 77 78";
  FileDescriptorStoreMax = 1;

  # systemd refuses a dynamic user whose name is that of a static group.
  DynamicUser = true;
  User = "flowctld";
  Group = "flowctl";
  StateDirectory = "flowctl";
  StateDirectoryMode = "0750";
  RuntimeDirectory = "flowctl";
  RuntimeDirectoryMode = "0750";
  UMask = "0027";

  AmbientCapabilities = "CAP_NET_ADMIN";
  CapabilityBoundingSet = "CAP_NET_ADMIN";
  NoNewPrivileges = true;
  ProtectSystem = "strict";
  ProtectHome = true;
  PrivateTmp = true;
  PrivateDevices = true;
  DevicePolicy = "closed";
  ProtectClock = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;
  ProtectControlGroups = true;
  ProtectProc = "invisible";
  ProcSubset = "all";
  RestrictAddressFamilies = "AF_NETLINK AF_UNIX";
  RestrictNamespaces = true;
  RestrictRealtime = true;
  RestrictSUIDSGID = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = true;
  RemoveIPC = true;
  KeyringMode = "private";
  SystemCallArchitectures = "native";
  SystemCallFilter = [
    "@system-service"
    "~@privileged @resources"
  ];
  IPAddressDeny = "any";
  MemoryMax = "256M";
  TasksMax = 64;
}
