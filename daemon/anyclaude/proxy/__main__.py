from anyclaude.proxy.main import main

main()
