"""Azure ML without Azure: the real SDK against a stand-in, with a real blob emulator."""
