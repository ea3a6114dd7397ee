"""The laptop's half: plans made of calls and steps, carried out on AWS and on the box."""
