"""How far the components of a mixture follow anatomy."""
