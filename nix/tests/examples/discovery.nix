{ services.flowctl.enable = true; }
