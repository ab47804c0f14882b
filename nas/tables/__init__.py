"""Published accuracies of networks, one `.csv.gz` per benchmark with its source and licence."""
