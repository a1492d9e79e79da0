"""From files to scans."""
