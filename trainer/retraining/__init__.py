"""One command from images to a released bundle, in steps that are never done twice."""
