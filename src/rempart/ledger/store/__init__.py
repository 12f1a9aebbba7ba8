"""What lies on the disk: frames of segments, files that are whole or not there, one owner."""
