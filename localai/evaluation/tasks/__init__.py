"""Questions with one right answer each: how many of them does a model get right?"""
