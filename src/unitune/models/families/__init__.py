"""What a model family is: the parts of its folders and how they are loaded."""
