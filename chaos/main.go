// Command chaos breaks processes, brokers and links while messages flow, and counts what is lost, repeated or out of order.
package main

func main() {}
