"""What can be configured: typed, torch-free, the single source of defaults and checks."""
