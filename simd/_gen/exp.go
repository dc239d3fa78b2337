package main

const expHeader = "x"

func expFile(g *gen) {}
