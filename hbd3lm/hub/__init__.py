"""The exported model directory: what is written, and the code in it that transformers runs."""
