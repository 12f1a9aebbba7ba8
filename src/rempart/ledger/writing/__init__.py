"""The one writer: from an entry to its acknowledgement, over crashes."""
