"""What every job shares: log, progress, device, and the pieces that it goes on with."""
