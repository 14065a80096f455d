"""Networks in int8: calibrated with a recording, judged on images that calibration never saw."""
