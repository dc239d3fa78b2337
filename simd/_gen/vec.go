package main

const vecHeader = "x"

func vecFile(g *gen) {}
