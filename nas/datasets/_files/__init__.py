"""Image files shipped with FlyNAS, with their licence and how they were made."""
