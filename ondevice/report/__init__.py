"""Reports of runs and studies: what the papers and the story hold, as one page in Markdown and in HTML.

Used by ``ondevice report`` alone. Reads files and writes only into the folder it is given; trains and measures nothing.
"""
