"""Pure losses: functions of tensors only. No network, configuration, device, rank or logging."""
