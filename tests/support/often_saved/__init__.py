"""The selection core, whose work in the making is saved three times a second."""
