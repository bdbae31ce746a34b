"""What joins kernels of tiles with their schedules: graphs extracted from loops, and schedules lowered into groups."""
