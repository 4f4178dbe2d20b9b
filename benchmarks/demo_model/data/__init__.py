"""Grammars that generate the demo model's training dialogues, one topic a module."""
