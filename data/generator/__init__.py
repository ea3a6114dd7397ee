"""The stages that write the shipped set: knowledge -> case -> label, and case -> note.

A case is drawn from the knowledge base; its label is read off the case by the rules of LABELLING.md, never off the text;
the note says the same case in sentences of the split's own frames. `data.generate` runs the stages and writes the files.
"""
