native_road: bool
