"""What a model is made of, where its files are, and how a cascade is loaded from them."""
