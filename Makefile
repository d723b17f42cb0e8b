test-postfix:
	@echo hi
