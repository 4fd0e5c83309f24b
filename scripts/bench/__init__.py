"""Speed and memory of Tunecask's training beside other programs', on the same model and rows."""
