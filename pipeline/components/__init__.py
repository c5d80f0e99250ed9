"""Our own TFX components, one module each, where TFX has none."""
