"""Records, readers, synthetic problems, tokenizers and packing: text in, token arrays out."""
