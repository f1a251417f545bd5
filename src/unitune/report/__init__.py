"""What people look at: tables, curves, pages; made of pictures and records, never of a model."""
